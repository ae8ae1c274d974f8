"""Study: several runs with one question: values of a recipe's keys beside each other, or two sides against each other."""
