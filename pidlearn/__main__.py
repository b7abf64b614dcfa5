"""`python -m pidlearn`, and so `torchrun -m pidlearn distill ...`."""

import sys

from pidlearn.cli.main import main

sys.exit(main())
