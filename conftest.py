"""Keep pytest away from the stage scripts whose names look like tests."""

collect_ignore_glob = ["test_*.py"]
