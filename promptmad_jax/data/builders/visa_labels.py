"""The class ids in VisA's masks: what each means, product by product.

A fact of the data set, published by its authors beside it; id k is the k-th label. Letter case as
in `image_anno.csv`, which names the same labels image by image.
"""

_PCB = ("bent", "melt", "scratch", "missing")
LABELS = {
    "candle": (
        "chunk of wax missing",
        "damaged corner of packaging",
        "weird candle wick",
        "different colour spot",
        "extra wax in candle",
        "foreign particals on candle",
        "wax melded out of the candle",
        "other",
    ),
    "capsules": ("bubble", "discolor", "scratch", "leak", "misshape"),
    "cashew": (
        "burnt",
        "corner or edge breakage",
        "different colour spot",
        "middle breakage",
        "small holes",
        "small scratches",
        "stuck together",
        "same colour spot",
        "other",
    ),
    "chewinggum": (
        "chunk of gum missing",
        "corner missing",
        "scratches",
        "similar colour spot",
        "small cracks",
        "other",
    ),
    "fryum": (
        "burnt",
        "corner or edge breakage",
        "different colour spot",
        "fryum stuck together",
        "middle breakage",
        "similar colour spot",
        "small scratches",
        "other",
    ),
    "macaroni1": (
        "chip around edge and corner",
        "different colour spot",
        "middle breakage",
        "similar colour spot",
        "small cracks",
        "small scratches",
        "other",
    ),
    "macaroni2": (
        "breakage down the middle",
        "color spot similar to the object",
        "different color spot",
        "small chip around edge",
        "small cracks",
        "small scratches",
        "other",
    ),
    "pcb1": _PCB,
    "pcb2": _PCB,
    "pcb3": _PCB,
    "pcb4": ("burnt", "scratch", "missing", "damage", "extra", "wrong place", "dirt"),
    "pipe_fryum": (
        "burnt",
        "corner and edge breakage",
        "different colour spot",
        "middle breakage",
        "similar colour spot",
        "small scratches",
        "stuck together",
        "small cracks",
        "other",
    ),
}


def mask_id(class_name: str, label: str) -> int:
    """The id of a label in the masks of a class; 0 where there is none."""
    labels = LABELS.get(class_name, ())
    return labels.index(label) + 1 if label in labels else 0
