"""TensorBoard event files, local or in an object store."""

import socket
import struct
import time
from collections.abc import Mapping

from etils import epath

from promptmad_jax.runtime.files import Appender


class EventFile:
    """Writes scalars for TensorBoard to a new event file.

    The writer of tensorboardX would use a thread, which ends at a full disk and whose queue then
    blocks the training.
    """

    def __init__(self, directory: epath.PathLike, resume_step: int):
        """Has TensorBoard ignore the steps after `resume_step` in older files."""
        from tensorboardX.proto import event_pb2

        self._proto = event_pb2
        # Nanoseconds: files opened in the same second need different names.
        stamp = time.time_ns()
        name = f"events.out.tfevents.{stamp // 10**9:010d}.{socket.gethostname()}.{stamp}"
        header = self._record(0, file_version="brain.Event:2")
        if resume_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            header += self._record(resume_step + 1, session_log=start)
        self._file = Appender(epath.Path(directory) / name, header)
        self.flush = self._file.flush

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Adds the value of each tag; raises as `Appender.append`."""
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self._file.append(self._record(step, summary=summary))

    def _record(self, step: int, **content: object) -> bytes:
        """An event in the framing of TFRecord: length, its checksum, data, their checksum."""
        from tensorboardX.record_writer import masked_crc32c

        data = self._proto.Event(wall_time=time.time(), step=step, **content).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksum = lambda part: struct.pack("<I", masked_crc32c(part))
        return length + checksum(length) + data + checksum(data)
