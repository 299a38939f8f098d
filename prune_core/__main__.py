"""``python -m prune_core``."""

from prune_core.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
