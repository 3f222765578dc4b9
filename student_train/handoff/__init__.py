"""Weights and rollouts, handed between a training group and the engines that sample from it."""
