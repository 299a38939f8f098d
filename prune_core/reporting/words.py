"""Words of a report in one language: catalogue texts, names of methods, numbers. No Streamlit."""

from __future__ import annotations

AUDIENCES = ("stakeholder", "technical")
