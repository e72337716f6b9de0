"""From footage to keypoints, by MediaPipe: needs the extra `video`, in an environment of its own."""
