"""What an event or a command does; no XML, no nft, no files of its own."""
