"""Measure how good a backbone is for detection and segmentation."""
