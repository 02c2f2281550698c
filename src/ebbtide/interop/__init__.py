"""Interop: conversion from and to the formats and services of other libraries, and nowhere else."""
