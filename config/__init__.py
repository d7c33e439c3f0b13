"""What the process was told (settings, secrets) and how it reports (logging). Imports none of ours."""

VERSION = "0.1.0"
"""The one place that says which version this is; the package's metadata are read from here."""
