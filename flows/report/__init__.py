"""The run report: facts.py says what is shown, charts.py and timeline.py draw, render.py makes the one HTML file."""
