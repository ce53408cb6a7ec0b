"""Quantization calibration: which windows set the ranges, and what those ranges cover.

Wearer calibration (adaptation, rotation, rejection) belongs here too.
"""
