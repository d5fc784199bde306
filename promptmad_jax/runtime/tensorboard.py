"""TensorBoard event files, local or in an object store."""

import socket
import struct
import time
from collections.abc import Mapping

from etils import epath

from promptmad_jax.runtime.files import Appender


class EventFile:
    """Scalars for TensorBoard in a new file of their own.

    Written by the caller itself: the writing thread of tensorboardX dies of a full disk, and its
    queue then stops the training.
    """

    def __init__(self, directory: epath.PathLike, resume_step: int):
        """Tells TensorBoard to disregard the steps after `resume_step` in older files."""
        from tensorboardX.proto import event_pb2

        self._proto = event_pb2
        # A name to the nanosecond: two files of one second must not meet.
        stamp = time.time_ns()
        name = f"events.out.tfevents.{stamp // 10**9:010d}.{socket.gethostname()}.{stamp}"
        header = self._record(0, file_version="brain.Event:2")
        if resume_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            header += self._record(resume_step + 1, session_log=start)
        self._file = Appender(epath.Path(directory) / name, header)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Adds the value of each tag; raises as `Appender.append`."""
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self._file.append(self._record(step, summary=summary))

    def flush(self) -> None:
        """Writes what is still kept; raises as `Appender.append`."""
        self._file.flush()

    def _record(self, step: int, **content: object) -> bytes:
        """One event in the framing of TFRecord: length, its checksum, data, their checksum."""
        from tensorboardX.record_writer import masked_crc32c

        event = self._proto.Event(wall_time=time.time(), step=step, **content)
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksum = lambda part: struct.pack("<I", masked_crc32c(part))
        return length + checksum(length) + data + checksum(data)
