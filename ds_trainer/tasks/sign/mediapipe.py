"""Facts about the keypoints that MediaPipe Holistic gives: 33 of the pose, 478 of the face, 21 of each hand.

Left and right are the signer's own.
"""

LEFT_SHOULDER, RIGHT_SHOULDER = 11, 12
NUM_POSE, NUM_FACE, NUM_FACE_WITH_IRISES, NUM_HAND = 33, 468, 478, 21
NUM_UPPER_POSE = 23
"""Head and arms; the hips follow, then the legs."""

# Nose 0, eyes 1-3 (left) and 4-6 (right); from the ears on, left and right alternate.
POSE_MIRROR = (0, 4, 5, 6, 1, 2, 3, *(left + side for left in range(7, NUM_POSE, 2) for side in (1, 0)))

# Nose; eyes, ears and mouth hang on it; arms from the shoulders, fingers of the pose on the wrists, legs from the hips.
POSE_PARENTS = (
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 12, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26, 27, 28,
    27, 28,
)  # fmt: skip

HAND_PARENTS = (0, *(0 if joint % 4 == 1 else joint - 1 for joint in range(1, NUM_HAND)))
"""Five fingers of four joints, each from the wrist."""

KARSL_POSE = (11, 12, 13, 14, 15, 16)
"""Shoulders, elbows and wrists, left before right."""

KARSL_FACE = (
    0, 7, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81, 82,
    84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 172, 173, 176, 178, 181, 185, 191, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317,
    318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382,
    384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 469, 470, 471, 472, 474,
    475, 476, 477,
)  # fmt: skip
"""The landmarks of the face in the KArSL keypoints: outline, brows, eyes, lips and the rims of the irises."""

# (right, left, length): landmark right + i is mirrored by left + i, for i below length; what is named nowhere lies on
# the midline. Found from 10,797 frames of the recordings in spoken-to-signed 0.4.0: faces aligned by similarity
# transforms (Procrustes), averaged, reflected, and matched one to one with the least sum of squared distances. The
# matching came out as an involution by itself; the greatest distance between a landmark and its reflected partner is
# 1.4 % of the face's width. The authors had moved these recordings onto one mean face (pose-anonymization), so they say
# nothing of differences between people; pairs of eyes, brows, lips and outline were checked against known ones.
_FACE_PAIRS = (
    (3, 248, 1), (7, 249, 1), (20, 250, 74), (95, 324, 56), (153, 380, 11), (165, 391, 3), (169, 394, 6),
    (176, 400, 19), (196, 419, 1), (198, 420, 1), (201, 421, 47), (468, 473, 1), (469, 476, 1), (470, 475, 1),
    (471, 474, 1), (472, 477, 1),
)  # fmt: skip


def _face_mirror() -> tuple[int, ...]:
    mirror = list(range(NUM_FACE_WITH_IRISES))
    for right, left, length in _FACE_PAIRS:
        for i in range(length):
            mirror[right + i], mirror[left + i] = left + i, right + i
    return tuple(mirror)


FACE_MIRROR = _face_mirror()
"""For each of the 478 landmarks of the face the one on the other side; those on the midline are their own."""
