"""Virtual time: the deployed protocol without threads, sockets or waiting."""
