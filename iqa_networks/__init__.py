"""Networks other than LinearityIQA, one family per file. They need torch alone, `maniqa` timm too."""
