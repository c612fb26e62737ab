"""Confident learning: which labels are probably wrong, judged by predictions for rows that the network had not seen.

Written from Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels (arXiv
1911.00068). Knows nothing of files or images.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelErrors:
    """What was found among N rows.

    Attributes:
        rows: int64 (E,), positions of the rows whose label is probably wrong, ascending.
        suggested: int64 (E,), the class that is predicted instead.
        score: float64 (E,), its probability less that of the label, above 0.
        joint: float64 (C, C), estimated number of rows by label (rows) and true class (columns).
    """

    rows: npt.NDArray[np.int64]
    suggested: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    joint: npt.NDArray[np.float64]

    @property
    def estimated(self) -> float:
        """Estimated number of wrong labels, found or not."""
        return float(self.joint.sum() - np.trace(self.joint))


def find_label_errors(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> LabelErrors:
    """The rows that both of the paper's rules for pruning name (its method "C+NR").

    A row counts as confidently of class j when its probability of j is at least the mean probability of j among the
    rows labelled j (eq. 2), of several such classes of the likeliest (eq. 1). The counts by label and confident class,
    scaled to the labels' own counts (eq. 3), estimate how many rows labelled i are truly j: the joint. Pruning by class
    takes from each label as many rows as the joint calls wrong, those of the lowest probability of the label. Pruning
    by noise rate takes for each pair of label and other class as many as the joint says, those of the largest lead of
    the other class. Rows whose label is predicted are kept.

    Args:
        labels: int64 (N,).
        probabilities: (N, C), out of sample: of a network that was not trained on the row.
    """
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    of_label = np.bincount(labels, minlength=classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(labels, own, classes) / of_label
    threshold = np.where(of_label > 0, mean, np.inf)
    above = probabilities >= threshold
    confident = np.where(above, probabilities, -1.0).argmax(axis=1)
    sure = above.any(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[sure], confident[sure]), 1.0)
    nobody = joint.sum(axis=1) == 0
    joint[nobody, nobody] = 1.0
    joint *= (of_label / joint.sum(axis=1))[:, None]

    by_class, by_rate = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        wrong = round(float(joint[label].sum() - joint[label, label]))
        by_class[rows[np.argsort(own[rows], kind="stable")[:wrong]]] = True
        for other in range(classes):
            if other != label:
                lead = probabilities[rows, other] - own[rows]
                by_rate[rows[np.argsort(-lead, kind="stable")[: round(float(joint[label, other]))]]] = True
    predicted = probabilities.argmax(axis=1)
    rows = np.flatnonzero(by_class & by_rate & (predicted != labels))
    score = probabilities[rows, predicted[rows]] - own[rows]
    return LabelErrors(rows, predicted[rows], score, joint)
