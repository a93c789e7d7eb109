"""Everything that touches a socket: WebSocket framing, the loop that reads frames, the one way out. Knows bytes, not messages.

``frames`` does no I/O; ``outbox`` writes; ``frame_loop`` joins them under Tornado's ``WebSocketHandler``; ``handshake`` says
what a proper upgrade request is; ``entrance`` is a short way in for those.
"""

from tornado_rt.wire.entrance import Admit, Entrance
from tornado_rt.wire.frame_loop import FrameHandler, FrameLoop
from tornado_rt.wire.frames import encode_frame
from tornado_rt.wire.handshake import BadHandshake, check_handshake
from tornado_rt.wire.outbox import Outbox

__all__ = ["Admit", "BadHandshake", "Entrance", "FrameHandler", "FrameLoop", "Outbox", "check_handshake", "encode_frame"]
