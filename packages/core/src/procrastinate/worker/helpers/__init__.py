"""Tasks on the event loop that a run needs beside the claiming and the writing."""
