"""The metrics in words, for readers who do not know their abbreviations."""

MEANINGS = {
    "image_auroc": "how often a defective image scores above a normal one; 50 is chance (area "
    "under the ROC curve of the image scores)",
    "image_ap": "precision averaged over all thresholds of the image score (average precision)",
    "image_f1max": "F1 of the image scores at the threshold that suits the test images best",
    "pixel_auroc": "how often a pixel on a defect scores above a normal one; 50 is chance",
    "pixel_ap": "precision averaged over all thresholds of the pixels: how well the map marks "
    "the defects themselves",
    "pixel_f1max": "F1 of the pixels at the threshold that suits the test images best",
    "pixel_aupro": "share of each defect that is covered, averaged over the thresholds with few "
    "false pixels (area under the per-region overlap, to a false-positive rate of 30 % unless set)",
    "pixel_aupro_05": "the same to a false-positive rate of 5 %",
    "pixel_iou": "overlap of the marked pixels and the defects (intersection over union)",
    "pixel_precision": "share of the marked pixels that lie on defects",
    "pixel_recall": "share of the defects' pixels that are marked",
    "pixel_f1": "harmonic mean of precision and recall of the pixels",
    "pixel_fpr": "share of the normal pixels that are marked (false-positive rate)",
    "pixel_fpr_good": "share of the pixels of normal images that are marked; what the threshold is "
    "set for",
    "image_accuracy": "share of the images that are judged rightly",
    "image_precision": "share of the alarms that are real",
    "image_recall": "share of the defective images that are found",
    "image_f1": "harmonic mean of precision and recall of the images",
    "image_fpr": "share of the normal images that raise an alarm (false-positive rate)",
}
