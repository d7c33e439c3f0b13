"""The work itself, free of Celery: find recordings, fetch them, verify them, hand them to the archive."""
