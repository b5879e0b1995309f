"""Why a model gave an answer: maps of what in a photograph spoke for a class."""
