"""Scores of intermediate neurons, a file for each; one that is added here is in every list.

Each takes the ``NeuronStatistics`` of a calibration text and gives scores by block, (neurons,)
float64; higher = keep. One whose scores are ``comparable`` ranks the neurons of all blocks as they
are; others are standardized within their block first.
"""
