"""`python -m quadbench` is `quadbench`."""

from quadbench.cli import main

raise SystemExit(main())
