"""``python -m wds_real`` runs ``wds-real``."""

from wds_real.cli.main import main

if __name__ == "__main__":
    main()
