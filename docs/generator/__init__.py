"""Fill the marked blocks of the documents from results, benchmark files and code.

    ./xp docs            # write every block anew
    ./xp docs --check    # exit code 1 where a document and its source differ

A block begins with the line `<!-- figures: NAME -->` and ends with `<!-- end -->`.  What is
between is made by the function of that name in `SOURCES`; edit its source, not the document.
"""
