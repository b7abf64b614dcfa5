"""EDM's U-Nets, written so that the published weights load by name.

`SongUNet` is the network of Song et al. 2021 (arXiv 2011.13456), `DhariwalUNet` that of Dhariwal & Nichol 2021 (arXiv
2105.05233), both as configured by EDM (Karras et al. 2022, arXiv 2206.00364, appendix F.2). Constructor options and
state-dict names are EDM's.
"""

from pidlearn.nets.unets.base import UNet
from pidlearn.nets.unets.dhariwal import DhariwalUNet
from pidlearn.nets.unets.song import SongUNet

__all__ = ["DhariwalUNet", "SongUNet", "UNet"]
