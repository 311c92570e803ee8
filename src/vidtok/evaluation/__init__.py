"""Evaluation: models, classical codecs and a linear transform measured on the same videos. See `docs/evaluation.md`.

    videos -> FrameStream -> Subject (model, codec, transform) -> Measuring -> Result (JSON) -> report.html

Frames are read in threads ahead of the subject, figures computed in threads behind it (`runner.py`).
"""
