"""Pictures: pure functions that return a matplotlib Figure or write an animation, all in one style.

style      colours, sizes, frames
points     samples beside real data, routes, steps on the way, velocity fields, data sets
curves     quality against cost, losses
forward    the forward process, from its formulas
images     grids of pictures
strips     pictures on the way: to noise and back, over training, between noises, with guidance, filled in
run        the pictures of a run on points
image_run  the pictures of a run on images
animation  sampling and training as GIF
report     write_report: everything in one self-contained page
"""
