// Pages whose title or heading has the word come before attributes and arguments of that name.
// Sphinx's own values are objNameMatch 11, objPartialMatch 6 and 15 for the first of objPrio.
var Scorer = {
  objNameMatch: 7,
  objPartialMatch: 2,
  objPrio: {0: 6, 1: 3, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
