"""Pictures: pure functions that return a matplotlib Figure or write an animation, all in one style.

style      colours, sizes, frames
points     samples beside real data, routes, steps on the way, velocity fields, data sets
curves     quality against cost, losses
forward    the forward process, from its formulas
images     grids of pictures
robots     policies: chunks over what was recorded, fans of them, scores, attention masks, latency
video      films of a simulator, the predicted chunk drawn in
strips     pictures on the way: to noise and back, over training, between noises, with guidance, filled in
run        the pictures of a run on points
image_run  the pictures of a run on images
robot_run  the pictures of a policy
animation  sampling and training as GIF
report     write_report: everything in one self-contained page
"""
