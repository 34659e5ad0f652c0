"""Networks other than LinearityIQA, one family per file. They need torch alone, two of them timm too."""
