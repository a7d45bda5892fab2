"""`sfserver animatic`: a timeline in, the same timeline with its gaps filled out.

rates      a rate as a fraction, a time as a whole number of frames
moments    which picture of which file a clip shows at its ends       sans I/O
words      what is to happen in a gap: markers, notes                 sans I/O
holes      what is to fill, and what is not and why                   sans I/O
place      a movie put where the hole was                             sans I/O
board      a timeline's file: read with suspicion, written whole
bundle     .otioz: a timeline with its media in one file
jobs       one job for a hole: its pictures, its recipe, its movie
fill       all jobs, through an engine here or a server
command    what is typed, and what is said
"""
