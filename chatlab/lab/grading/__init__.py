"""Grading a class: `chatlab grade FOLDER` judges the notebooks of thirty learners, each in a process of its own."""
