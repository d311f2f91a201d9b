"""What is said by hand of files of other projects; a study's section has the same keys."""

from visae.config.unsaid import CodeRule, DecoderBias, Format, Rows, Unsaid

__all__ = ["CodeRule", "DecoderBias", "Format", "Rows", "Unsaid"]
