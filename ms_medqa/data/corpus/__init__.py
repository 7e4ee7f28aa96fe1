"""The project's own medical text: tables of phrases and the generators that make sentences of them.

`python -m ms_medqa.data.corpus pretrain` writes the text for pre-training the shipped base model,
`python -m ms_medqa.data.corpus mini` the sample records medqa-mini. The tables hold general knowledge and, apart from
it, facts that are kept out of every pre-training text, so that fine-tuning is what teaches them.
"""
