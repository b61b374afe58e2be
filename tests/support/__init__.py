"""What tests share: servers, launchers and models; scripts that tests run find them with this folder in PYTHONPATH."""

from pathlib import Path

SUPPORT = Path(__file__).parent
