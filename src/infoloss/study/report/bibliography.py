"""BibTeX of the losses in a study and of the methods its report uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis


class Source(Protocol):
    """What the bibliography reads of a catalogue entry."""

    @property
    def bibtex(self) -> str: ...

    @property
    def bibtex_key(self) -> str: ...


COLLECTION_METHODS = ("benavoli2014", "benavoli2017", "demsar2006")

_METHODS = {
    "holm1979": """@article{holm1979,
  author  = {Holm, Sture},
  title   = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  number  = {2},
  pages   = {65--70},
  year    = {1979},
}""",
    "schuirmann1987": """@article{schuirmann1987,
  author  = {Schuirmann, Donald J.},
  title   = {A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the
             Equivalence of Average Bioavailability},
  journal = {Journal of Pharmacokinetics and Biopharmaceutics},
  volume  = {15},
  number  = {6},
  pages   = {657--680},
  year    = {1987},
}""",
    "nadeau2003": """@article{nadeau2003,
  author  = {Nadeau, Claude and Bengio, Yoshua},
  title   = {Inference for the Generalization Error},
  journal = {Machine Learning},
  volume  = {52},
  number  = {3},
  pages   = {239--281},
  year    = {2003},
}""",
    "demsar2006": """@article{demsar2006,
  author  = {Dem{\\v{s}}ar, Janez},
  title   = {Statistical Comparisons of Classifiers over Multiple Data Sets},
  journal = {Journal of Machine Learning Research},
  volume  = {7},
  pages   = {1--30},
  year    = {2006},
}""",
    "benavoli2014": """@inproceedings{benavoli2014,
  author    = {Benavoli, Alessio and Corani, Giorgio and Mangili, Francesca and Zaffalon, Marco and
               Ruggeri, Fabrizio},
  title     = {A {B}ayesian {W}ilcoxon Signed-Rank Test Based on the {D}irichlet Process},
  booktitle = {Proceedings of the 31st International Conference on Machine Learning},
  series    = {Proceedings of Machine Learning Research},
  volume    = {32},
  year      = {2014},
}""",
    "benavoli2017": """@article{benavoli2017,
  author  = {Benavoli, Alessio and Corani, Giorgio and Dem{\\v{s}}ar, Janez and Zaffalon, Marco},
  title   = {Time for a Change: a Tutorial for Comparing Multiple Classifiers Through {B}ayesian Analysis},
  journal = {Journal of Machine Learning Research},
  volume  = {18},
  number  = {77},
  pages   = {1--36},
  year    = {2017},
}""",
    "bouthillier2021": """@inproceedings{bouthillier2021,
  author    = {Bouthillier, Xavier and Delaunay, Pierre and Bronzi, Mirko and Trofimov, Assya and
               Nichyporuk, Brennan and Szeto, Justin and Mohammadi Sepahvand, Nazanin and Raff, Edward and
               Madan, Kanika and Voleti, Vikram and Ebrahimi Kahou, Samira and Michalski, Vincent and
               Arbel, Tal and Pal, Chris and Varoquaux, Ga{\\"e}l and Vincent, Pascal},
  title     = {Accounting for Variance in Machine Learning Benchmarks},
  booktitle = {Proceedings of Machine Learning and Systems},
  volume    = {3},
  pages     = {747--769},
  year      = {2021},
}""",
    "guo2017": """@inproceedings{guo2017,
  author    = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  title     = {On Calibration of Modern Neural Networks},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  series    = {Proceedings of Machine Learning Research},
  volume    = {70},
  pages     = {1321--1330},
  year      = {2017},
}""",
    "lan1983": """@article{lan1983,
  author  = {Lan, K. K. Gordon and DeMets, David L.},
  title   = {Discrete Sequential Boundaries for Clinical Trials},
  journal = {Biometrika},
  volume  = {70},
  number  = {3},
  pages   = {659--663},
  year    = {1983},
}""",
    "kim1987": """@article{kim1987,
  author  = {Kim, Kyungmann and DeMets, David L.},
  title   = {Design and Analysis of Group Sequential Tests Based on the Type {I} Error Spending Rate
             Function},
  journal = {Biometrika},
  volume  = {74},
  number  = {1},
  pages   = {149--154},
  year    = {1987},
}""",
    "naeini2015": """@inproceedings{naeini2015,
  author    = {Pakdaman Naeini, Mahdi and Cooper, Gregory F. and Hauskrecht, Milos},
  title     = {Obtaining Well Calibrated Probabilities Using {B}ayesian Binning},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {29},
  year      = {2015},
}""",
}


def loss_keys(analysis: Analysis, catalogue: Mapping[str, Source]) -> dict[str, str]:
    """Citation key of each catalogue entry the study uses that has a source, in order of use."""
    names = dict.fromkeys(name for loss in analysis.losses for name in loss.entries)
    return {
        name: catalogue[name].bibtex_key for name in names if name in catalogue and catalogue[name].bibtex
    }


def method_keys(analysis: Analysis) -> list[str]:
    """Citation keys of the statistical methods behind this report's numbers."""
    scored = {key for loss in analysis.losses for key in loss.scores}
    keys = []
    if analysis.verdicts:
        keys += ["holm1979", "schuirmann1987", "bouthillier2021"]
    if any("roughly" in verdict.covers for verdict in analysis.verdicts):
        keys.append("nadeau2003")
    if analysis.verdicts and "looks" in analysis.protocol:
        keys += ["lan1983", "kim1987"]
    if "nll_scaled" in scored:
        keys.append("guo2017")
    if "ece" in scored:
        keys.append("naeini2015")
    return keys


def methods(keys: Sequence[str]) -> str:
    """The records of statistical methods."""
    return "\n\n".join(_METHODS[key] for key in keys) + "\n"


def bibtex(analysis: Analysis, catalogue: Mapping[str, Source]) -> str:
    """One entry for each source: losses first, then methods; a source shared by two losses stands once."""
    entries = {catalogue[name].bibtex_key: catalogue[name].bibtex for name in loss_keys(analysis, catalogue)}
    entries |= {key: _METHODS[key] for key in method_keys(analysis) if key not in entries}
    return "\n\n".join(entry.strip() for entry in entries.values()) + "\n"
