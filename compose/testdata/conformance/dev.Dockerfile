FROM img
