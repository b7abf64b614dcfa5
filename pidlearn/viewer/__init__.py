"""One picture that moves: teacher and student from the same noise, in the app, a notebook, a page of docs or a file.

A `Scene` is plain data, made of NumPy arrays. ``viewer.js`` beside this file draws it in any browser, and evaluates the
teacher's field and small students there, so that nothing that is dragged waits for a server. Nothing here needs torch.
"""

from pidlearn.viewer.scene import Heat, Images, Network, Plane, Scene, View, phase_plane, script

__all__ = ["Heat", "Images", "Network", "Plane", "Scene", "View", "phase_plane", "script"]
