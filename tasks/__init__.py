"""What can be asked for: by the clock (Celery application, schedule, tasks) or by hand (the command line)."""
