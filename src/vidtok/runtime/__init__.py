"""Running a model on videos: streams, tiles, whole passes, memory budgets, threads."""
