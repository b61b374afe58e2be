"""Prediction files of all kinds, in four steps: bytes, named columns, what each column holds, the predictions.

places, folders                             paths and URLs of files and of output folders -> bytes
columns, text, json_tables, arrays, parquet   bytes -> `Columns`
objects                                     tables, tensors and mappings in memory -> `Columns`
spellings                                   which words and cells are headers, names and classes, for all of them
roles                                       `Columns` -> `Roles`: the column of names and the columns of classes
values                                      one prediction, or a column of them -> five classes
order                                       names or row numbers -> keys

`wds_real.scoring.prediction_reader` goes through these steps.
"""
