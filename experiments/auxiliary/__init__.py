"""Measures whether auxiliary losses (r-LSTM, p-LSTM) help where the only loss is at the end."""
