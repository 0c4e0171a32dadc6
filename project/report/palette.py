"""Colours that a colour-blind reader can tell apart, on light and on dark ground.

Okabe and Ito, "Color Universal Design" (2008), for categories; viridis for amounts.
"""

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
FAINT, GREY = "rgba(128,128,128,0.18)", "rgba(128,128,128,0.55)"
CATEGORIES = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, YELLOW)
AMOUNTS = "Viridis"
STAGES = ((0.0, "#123a57"), (0.5, "#1f78ac"), (1.0, "#9fd3f0"))
"""Neighbours in a row, one lightness each."""

# What a rank does in a step, in the order of the legend.
KINDS = {
    "forward": BLUE,
    "backward": ORANGE,
    "weight gradient": GREEN,
    "send/receive": PINK,
    "gradients": SKY,
    "optimizer": VERMILION,
    "data": YELLOW,
    "other": GREY,
    "idle": FAINT,
}
