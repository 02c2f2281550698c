"""Figures: pure functions that return a matplotlib Figure or write an animation, all in one style.

colours    of methods
style      colours, sizes, frames
points     samples beside real data, routes, steps on the way, samples over training
columns    the distribution of every column of a table, and of every pair
fields     velocity fields
dataset    a data set and its exact density
curves     quality against cost, losses
density    log-densities on a plane, a model's beside the true one; outlines of data
forward    the forward process, from its formulas
continuum  all densities of a single point on its way to noise, as a figure and as a film
images     grids of images
robots     policies: chunks over what was recorded, and fans of them
pusht      fans of chunks over Push-T's scene
scores     policies' scores, and the time a chunk takes
attention  which token attends to which
video      films of a simulator, the predicted chunk drawn in
strips     images on the way: to noise and back, over training, between noises, with guidance, filled in
films      images on the way, as GIF
animation  points on the way, as GIF
report     write_report: everything in one self-contained page
study      Comparison: the data of a report
"""
