"""The viewer: an interactive picture of teacher and student, for the app, notebooks, web pages and files.

A `Scene` is plain data, made of NumPy arrays. The JavaScript in ``js/`` draws it in any browser, and evaluates the
teacher's vector field and small students there, so that dragging never waits for a server. Nothing in this module
needs torch.
"""

from pidlearn.viewer.scene import Heat, Images, Network, Plane, Scene, View, phase_plane, script

__all__ = ["Heat", "Images", "Network", "Plane", "Scene", "View", "phase_plane", "script"]
