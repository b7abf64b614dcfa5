"""Students that were trained with the official PID code."""

from __future__ import annotations

from pathlib import Path

from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers.files import official_pid
from pidlearn.utils.arguments import PATH, check_arguments

__all__ = ["load_official_student"]


@check_arguments(path=PATH)
def load_official_student(path: str | Path) -> Trajectory:
    """Load a student that was trained with the official PID code, as a trajectory x(z, t); nothing in it is executed.

    Args:
        path: a ``model*.pt`` or ``ema_*.pt`` file of the official repository.

    Returns:
        The trajectory from t_max = 80 to t_min = 0.002, in eval mode and frozen, with z scaled as at t_max for every t
        and sigma_data 0.5: ``sample(n)`` returns images (n, channels, R, R). Class labels are int64 (n,).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of anything else, a teacher included.
    """
    network, event_shape = official_pid.read_student_network(Path(path))
    # The official code's constants; its files do not hold them.
    return Trajectory(network, 80.0, t_min=0.002, sigma_data=0.5, event_shape=event_shape).eval()
