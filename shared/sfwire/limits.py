"""Every number that a peer may not exceed, with its reason.

A limit is checked before anything is allocated or decoded for the value it bounds, on both ends.
"""

PROTOCOL = 2
"""Version of the wire. A change that an old peer would misread raises it."""
OLDEST_PROTOCOL = 1
"""What a server still speaks to a client that has not been updated; PROTOCOL.md says what that one cannot ask for."""

AUTO = "auto"
"""In place of an engine's id: the server chooses. No engine has this id."""

# Pictures -----------------------------------------------------------------------------------------------------------

MAX_SIDE_PX = 4096
"""DCI 4K is 4096 wide; nothing a video editor cuts is wider on one side."""
MAX_PIXELS = 4096 * 2160
"""One DCI 4K frame: 26.5 MB as RGB8. Bounds every buffer."""
MIN_SIDE_PX = 16
"""Below this no engine has a single patch to look at."""
CHANNELS, RGBA = 3, 4
"""Samples of a pixel: red, green, blue; or alpha as well. Where nothing is said it has three."""
DEPTH, DEPTHS = 8, (8, 16, 32)
"""Bits a sample: whole numbers, or with 32 a float. Where nothing is said it has eight."""
MAX_BUFFER_BYTES = MAX_PIXELS * RGBA * 2
"""The largest raw buffer: one DCI 4K frame with alpha at 16 bits a sample. Floats with alpha go up to 2304x1920."""
PNG_SLACK_BYTES = 64 * 1024
"""A PNG of noise is a little larger than the raw picture: one filter byte a row, deflate's block heads, the chunks."""

# Messages -----------------------------------------------------------------------------------------------------------

MAX_HEADER_BYTES = 256 * 1024
"""A Welcome that describes 32 engines of 32 parameters each takes about 150 KB; nothing else comes near it."""
MAX_KEYFRAMES = 24
"""Sixteen keyframes, of which the first may be a run of five frames and the last one of four: 23."""
MAX_KEYFRAMES_OF_1 = 8
"""What a client of protocol 1 takes for the most that an engine can say."""
MAX_PARTS = 1 + MAX_KEYFRAMES
"""One header and a buffer for each keyframe."""
MAX_REQUEST_BYTES = 8 * MAX_PIXELS * CHANNELS
"""Of all pictures of one request: eight of 4K as RGB8, 212 MB, or 24 of up to 2560x1440; three of RGBA at 16 bits."""
MAX_SOCKET_FRAME_BYTES = MAX_BUFFER_BYTES + PNG_SLACK_BYTES
"""ZMQ_MAXMSGSIZE: libzmq applies it to each frame of a message, so count and sum are checked as well."""

# Values -------------------------------------------------------------------------------------------------------------

MAX_ID_CHARS = 64
MAX_NAME_CHARS = 80
MAX_SENTENCE_CHARS = 2000
"""Titles, help texts and error messages."""
MAX_PROMPT_CHARS = 4000
"""About twice what 512 text tokens, the model's own limit, can hold."""
MAX_PROMPTS = 16
"""Changes of prompt within a clip. With all of them as long as may be, in letters of four bytes, a header is full."""
MIN_FRAMES = 2
MAX_FRAMES = 1000
"""Clip length of any engine, 40 s at 25 frames a second; an engine may allow less and says so in Welcome."""
MAX_SEED = 2**63 - 1
MAX_ARRAY_LENGTH = 128
"""Of any array of a header: `yours` of a Pong has the most. MessagePack sets aside what an array claims to hold."""
MAX_MAP_LENGTH = 64
"""Of any map: a Generate has 14 fields, and 32 parameters at most."""
MAX_CONTAINERS_TO_SERVER = 64
"""Arrays and maps of one header from a client: itself, keyframes, prompts and parameters are at most 44."""
MAX_CONTAINERS_TO_CLIENT = 4096
"""The same from a server: 32 engines of 32 parameters, each with its choices, are 2,200."""
MAX_INT = 2**63 - 1
"""Of any whole number, above zero or below: what every language's MessagePack can read."""
MAX_CREDIT_AHEAD = 64
"""Frames in flight to one client: 64 of 832x480 RGB8 are 77 MB."""
MAX_ENGINES = 32
MAX_PARAMETERS = 32
MAX_CHOICES = 64
MAX_MISSING_FILES = 32

# Peers --------------------------------------------------------------------------------------------------------------

MAX_CLIENTS = 32
"""Connections that the server remembers; a video editor has one, a farm of scripts a few."""
MAX_WORKERS = 64
MAX_QUEUED = 64
"""Requests that wait for a worker, of all clients together."""
MAX_QUEUED_OF_ONE = MAX_QUEUED // 2
"""Of them, of one client: nobody fills the house alone."""
MAX_QUEUED_BYTES = 1024**3
"""Keyframes held for waiting requests, of all clients together."""
MAX_QUEUED_BYTES_OF_ONE = MAX_QUEUED_BYTES // 2
"""The same of one client: two requests of the largest size."""
MAX_WAITING_BYTES = 96 * 1024**2
"""Sent to one client and not yet taken by its computer: 64 frames of 832x480 RGB8, or three of DCI 4K. A server that
cannot see what was taken (it is no Linux) lets no more than this be ahead of what the client says it took."""
MAX_UNREAD_BYTES = MAX_REQUEST_BYTES + 48 * 1024**2
"""Come from one client and not yet read: one request of the largest size, what ZeroMQ adds to it, and what of the next
one comes before we look."""
MAX_UNREAD_BYTES_OF_ALL = 2 * MAX_UNREAD_BYTES
"""The same of all connections together, those that never said a word too."""
SOCKET_HIGH_WATER_MARK = 256
"""Messages; credit keeps the real number far below it. 0 (no limit) would let a stalled peer fill the memory."""

# Time ---------------------------------------------------------------------------------------------------------------

PING_INTERVAL_S = 1.0
LOST_AFTER_PINGS = 4
"""Pings without any answer before a client calls the server lost."""
CLIENT_LOST_AFTER_S = 10.0
"""Silence after which the server forgets a client and cancels its jobs. A laptop's hiccup is shorter."""
MAX_UNTAKEN_S = 60.0
"""A client that takes no frame for so long, while another waits for a worker, gives up its place. It may ask again."""
HELLO_TIMEOUT_S = 30.0
"""A server that was just started imports torch before it can say which engines it has."""
ACCEPT_TIMEOUT_S = 5.0
"""A message that is too large vanishes in libzmq without a word to its sender; only a time-out tells."""
