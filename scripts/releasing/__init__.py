"""The steps of scripts/release: libjpeg-turbo, the two archives, their contents, and a trial of the wheel."""
