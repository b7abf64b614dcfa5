"""`python -m pidlearn`, and so `torchrun -m pidlearn distill ...`."""

import sys

from pidlearn.cli import main

sys.exit(main())
